"""What generators and discriminators share."""
