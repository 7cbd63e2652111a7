"""The data job: from patients' CT and contours to TFRecord shards and their manifest."""

import logging

# apache_beam logs this on import where Google Cloud's libraries are not installed.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
