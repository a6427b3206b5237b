"""What tests of models, reports and exports share."""
