"""Train the last blocks on cached activations: blocks (split a backbone), activations, state (the step), evaluate."""
