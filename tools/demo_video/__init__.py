"""Board videos: scenes as numbers, painted and recorded, with questions and answers."""
