#!/bin/bash
# Run once by the image of PostgreSQL, on a new primary: let the replica connect.
set -euo pipefail
echo "host replication $POSTGRES_USER samenet scram-sha-256" >>"$PGDATA/pg_hba.conf"
