"""What the programs that evaluate and predict share: weights, ground truth, errors, reports."""
