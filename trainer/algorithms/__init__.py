"""Policy optimisation, each method in its smallest right form, on pure functions of tensors."""
