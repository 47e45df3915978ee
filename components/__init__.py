"""What a pipeline is made of: datasets, families, and the stages that link them. Nothing here knows Prefect."""
