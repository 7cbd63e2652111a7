"""The data job: from patients' CT and contours to TFRecord shards and their manifest."""

import logging

# Said by apache_beam on import wherever Google Cloud's libraries are not installed.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
