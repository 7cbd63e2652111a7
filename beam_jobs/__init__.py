"""The data job: from patients' CT and contours to TFRecord shards and their manifest."""
