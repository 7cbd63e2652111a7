"""From scans to label maps: the model directory, the networks, the results' folder."""
