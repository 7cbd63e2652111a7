"""From label maps to scores, tables, pictures and the report's page. No tensorflow."""
