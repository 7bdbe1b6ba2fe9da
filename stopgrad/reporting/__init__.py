"""What a person reads of a run: charts from its log. No torch."""
