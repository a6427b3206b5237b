"""Text as tokens: vocabularies, corpora, and what a language model writes."""
