"""What the doctor looks at: a file for each part of the queue, each check a function that gives one finding."""
