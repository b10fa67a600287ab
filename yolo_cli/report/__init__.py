"""report.html: what an evaluation found, with the images behind it, in one file that needs no network."""
