#!/bin/bash
# Copy the primary if there is nothing yet, and follow it. For compose and for the overlay `local`.
set -euo pipefail
export PGPASSWORD
PGPASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    until pg_isready --quiet --host primary; do sleep 1; done
    # A copy that was interrupted is begun again.
    rm -rf "$PGDATA"
    pg_basebackup --host primary --username "$POSTGRES_USER" --pgdata "$PGDATA" \
        --write-recovery-conf --wal-method stream --checkpoint fast
fi
exec postgres
