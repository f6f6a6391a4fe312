//! Metric families from names, labels and values.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::base::timing::{BUCKETS, TimingSummary};

/// Names and values of labels.
pub(super) type MetricLabels<'a> = &'a [(&'a str, &'a str)];

/// Labels and value of one series.
pub(super) type MetricSample<'a> = (Vec<(&'a str, &'a str)>, f64);

/// The families of a scrape.
#[derive(Default)]
pub(super) struct Families(pub(super) Vec<MetricFamily>);

impl Families {
    pub(super) fn counters<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = MetricSample<'a>>) {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let (mut metric, mut counter) = (metric_with_labels(&labels), Counter::default());
            counter.set_value(value);
            metric.set_counter(counter);
            metric
        });
        self.add(MetricType::COUNTER, name, help, metrics.collect());
    }

    pub(super) fn gauges<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = MetricSample<'a>>) {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let (mut metric, mut gauge) = (metric_with_labels(&labels), Gauge::default());
            gauge.set_value(value);
            metric.set_gauge(gauge);
            metric
        });
        self.add(MetricType::GAUGE, name, help, metrics.collect());
    }

    pub(super) fn add(&mut self, kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) {
        // The encoder rejects families without series.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn metric_with_labels(labels: MetricLabels<'_>) -> Metric {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.into());
        pair.set_value(value.into());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

/// A histogram with the summary of a timing.
pub(super) fn histogram(labels: MetricLabels<'_>, summary: &TimingSummary) -> Metric {
    let bucket = |(&bound, &count): (&f64, &u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let (mut metric, mut histogram) = (metric_with_labels(labels), Histogram::default());
    histogram.set_sample_count(summary.count);
    histogram.set_sample_sum(summary.wall.as_secs_f64());
    histogram.set_bucket(BUCKETS.iter().zip(&summary.buckets).map(bucket).collect());
    metric.set_histogram(histogram);
    metric
}
