"""What a run leaves behind for people and programs: records, summary, report, and the trackers they go to."""
