#!/bin/bash
# Run once by the image of PostgreSQL, on a new primary: let the replica connect. For compose and for
# the overlay `local`.
set -euo pipefail
echo "host replication $POSTGRES_USER all scram-sha-256" >>"$PGDATA/pg_hba.conf"
