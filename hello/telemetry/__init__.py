"""What operators see: figures and the log.

`metrics` declares every metric, of the kinds that `metric_types` has; `shared` is the memory in
which the workers show them to each other, `admin` the port, `exposition` what Prometheus reads
there. `logs` has the log and gunicorn's logger.

It imports nothing of the rest but the version: whatever counts or logs imports it.
"""
