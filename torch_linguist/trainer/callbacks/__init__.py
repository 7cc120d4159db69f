"""What happens around updates and validations of the long training."""
