"""What is wrong with a dataset before training: functions over label indexes and image statistics, to findings."""
