"""What is told of an incident, and when it is told again. No wire in here."""
