"""Settings: the models, their files, and what each value means."""
