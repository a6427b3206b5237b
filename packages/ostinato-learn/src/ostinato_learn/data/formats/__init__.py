"""Files of one format each, read as tables, arrays or documents."""
