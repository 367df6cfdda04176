"""An S3 server that is stricter than Amazon's: what is only advice there is an error here."""
