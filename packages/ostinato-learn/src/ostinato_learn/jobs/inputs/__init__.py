"""What a job begins with: a user's settings, the data that they name, and their parts."""
