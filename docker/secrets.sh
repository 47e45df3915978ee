#!/bin/sh
# Writes docker/.env: a random password or token for each server, and the numbers of whoever runs this.
# It never overwrites one: the databases keep the passwords that they were made with.
set -eu
umask 077
file=${1:-$(dirname "$0")/.env}

if [ -e "$file" ]; then
  echo "$file exists and is kept: the databases were made with its passwords" >&2
  exit 1
fi

secret() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

{
  echo "# Made by docker/secrets.sh. Keep it as you keep a key; never commit it."
  for name in POSTGRES_PASSWORD MLFLOW_DB_PASSWORD PREFECT_DB_PASSWORD MLFLOW_PASSWORD MLFLOW_SECRET_KEY \
    PREFECT_PASSWORD RAY_TOKEN S3_ACCESS_KEY S3_SECRET_KEY S3_VOLUME_KEY S3_VOLUME_READ_KEY S3_FILER_KEY S3_FILER_READ_KEY; do
    echo "$name=$(secret)"
  done
  echo "# The user that owns the project's folder: the scheduler writes results as this user."
  echo "TIDEMILL_USER=$(id -u):$(id -g)"
  echo "# Who is told of runs that fail (docs/team.md): a webhook, a mail address, both or none."
  echo "#TIDEMILL_NOTIFY_WEBHOOK="
  echo "#TIDEMILL_NOTIFY_EMAIL="
} > "$file"
echo "wrote $file" >&2
if [ "$(id -u)" = 0 ]; then
  echo "the scheduler will run as root, as you do: name the owner of the project in TIDEMILL_USER there" >&2
fi
