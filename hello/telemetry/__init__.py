"""Metrics and the log, which operators read.

`metrics` declares every metric, of the types in `metric_types`; `shared` is the memory in which the
workers show their figures to each other, `admin` the port, `exposition` the text that Prometheus
reads there. `logs` has the log and gunicorn's logger, `names` what all of them call a request.

This package imports nothing of hello but the version: modules that count or log import it.
"""
