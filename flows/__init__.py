"""Who plays the stages and when: Prefect flows, schedules, the servers and the command line."""
