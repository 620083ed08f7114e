"""The command line, on click and rich: the extra ``[cli]``. Nothing else imports this."""
