"""Turn the answers of a validation run into statistics, tables, figures and one page."""
