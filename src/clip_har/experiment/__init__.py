"""What commands share: setup, training, predictions, evaluation, explanations. Nothing here prints."""
