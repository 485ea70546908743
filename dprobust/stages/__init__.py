"""The jobs of the workflow, a function each: from a specification (`dprobust.plan`) and files to files."""
