"""How the embedded models were made. Nothing else in the package imports from here."""
