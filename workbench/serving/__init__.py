"""The app in a browser: Textual's web server, for this machine and whoever has the address alone."""
