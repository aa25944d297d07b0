"""What `import ffhqref` offers: functions and objects for scripts, notebooks and trainings (docs/library.md)."""
