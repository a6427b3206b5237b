"""`ostinato stream`, from bytes to answers."""
