//! Sends generated payments to the source topic: for the demo only.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ThreadedProducer};

use crate::broker::Topic;
use crate::broker::client::{CALL_TIMEOUT, Settings};
use crate::domain::partition;

/// Pause before a full queue is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);

/// Sends payments (id, JSON) to the partitions of their ids and `last` to every partition, and
/// waits until all are delivered. The number of payments, or one line about what went wrong.
pub fn feed(
    settings: &Settings,
    partitions: i32,
    payments: impl Iterator<Item = (String, String)>,
    last: &str,
) -> Result<u64, String> {
    let producer: Feeder = settings
        .feeder()
        .create()
        .map_err(|error| error.to_string())?;
    let topic = settings.topics.of(Topic::Source);
    let mut count = 0;
    for (id, json) in payments {
        let number = partition::of_key(id.as_bytes(), partitions);
        let record = BaseRecord::<str, str>::to(topic)
            .partition(number)
            .key(&id)
            .payload(&json);
        send(&producer, record)?;
        count += 1;
    }
    for number in 0..partitions {
        let record = BaseRecord::<str, str>::to(topic)
            .partition(number)
            .payload(last);
        send(&producer, record)?;
    }
    producer
        .flush(CALL_TIMEOUT * 3)
        .map_err(|error| error.to_string())?;
    Ok(count)
}

type Feeder = ThreadedProducer<rdkafka::producer::DefaultProducerContext, NoCustomPartitioner>;

fn send(producer: &Feeder, mut record: BaseRecord<str, str>) -> Result<(), String> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                record = again;
                std::thread::sleep(QUEUE_FULL_PAUSE);
            }
            Err((error, _)) => return Err(error.to_string()),
        }
    }
}
