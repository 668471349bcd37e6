#!/bin/bash
# Copy the primary if there is nothing yet, and follow it.
set -euo pipefail
export PGPASSWORD
PGPASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A copy that was interrupted is begun again.
    rm -rf "$PGDATA"
    pg_basebackup --host primary --username "$POSTGRES_USER" --pgdata "$PGDATA" \
        --write-recovery-conf --wal-method stream --checkpoint fast
fi
exec postgres
