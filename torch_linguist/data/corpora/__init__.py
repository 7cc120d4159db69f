"""Sources of text: named splits of documents."""
