#!/bin/sh
# Postgres runs this once, when its volume is empty: a database for each server, each with a user of its own.
set -eu

for name in mlflow prefect; do
  case $name in
    mlflow) password=$MLFLOW_DB_PASSWORD ;;
    prefect) password=$PREFECT_DB_PASSWORD ;;
  esac
  psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres --set=name="$name" --set=password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
