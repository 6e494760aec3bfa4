"""The ground floor of relic: training, data, records and statistics; it knows no paper."""
