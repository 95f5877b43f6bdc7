"""Other people's engines: each adapter lets a scheduler carry out runs, over `taskcred.client` alone."""
