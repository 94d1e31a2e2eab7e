"""What people add to traces: assessments, tags, sessions."""
