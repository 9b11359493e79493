"""Turn the answers of a results folder into statistics, tables, figures and one page. Runs no model."""
