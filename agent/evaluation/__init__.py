"""Evaluation on footage of one's own: questions with known answers, asked as any other task, scored by kind."""
