"""The networks. A folder is an architecture: settings.py (`Model`, typed settings, no torch), build.py (`layers`);
`dprobust.models.networks` builds, saves and loads them."""
