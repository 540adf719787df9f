CREATE TABLE IF NOT EXISTS settle.payment_log (
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    payment_id  text,
    recorded_at timestamptz,
    body        jsonb,
    raw         bytea,
    PRIMARY KEY (partition, "offset"),
    CHECK (body IS NULL OR raw IS NULL)
);

CREATE TABLE IF NOT EXISTS settle.settlement (
    payment_id       text      NOT NULL,
    channel          text      NOT NULL,
    payment_type     text      NOT NULL,
    amount           bigint    NOT NULL,
    merchant_number  text      NOT NULL,
    payment_date     timestamp NOT NULL,
    action_type      text      NOT NULL,
    method_type      text      NOT NULL,
    payout_date      date      NOT NULL,
    confirm_date     date      NOT NULL,
    payout_basis     text      NOT NULL,
    rule_id          text,
    source_partition integer   NOT NULL,
    source_offset    bigint    NOT NULL,
    PRIMARY KEY (source_partition, source_offset)
);

CREATE TABLE IF NOT EXISTS settle.exclusion (
    source_partition integer NOT NULL,
    source_offset    bigint  NOT NULL,
    payment_id       text,
    reason           text    NOT NULL,
    merchant_number  text,
    amount           bigint,
    first_partition  integer,
    first_offset     bigint,
    PRIMARY KEY (source_partition, source_offset)
);

CREATE TABLE IF NOT EXISTS settle.dead_letter (
    source_partition integer NOT NULL,
    source_offset    bigint  NOT NULL,
    payment_id       text,
    reason           text    NOT NULL,
    detail           text    NOT NULL,
    payload          bytea,
    PRIMARY KEY (source_partition, source_offset)
);

CREATE TABLE IF NOT EXISTS settle.payout_rule (
    rule_key     text PRIMARY KEY,
    rule_id      text NOT NULL,
    payout_date  date NOT NULL,
    confirm_date date NOT NULL
);

CREATE TABLE IF NOT EXISTS settle.statistics (
    merchant_number text   NOT NULL,
    payment_date    date   NOT NULL,
    action_type     text   NOT NULL,
    method_type     text   NOT NULL,
    total_amount    bigint NOT NULL,
    count           bigint NOT NULL,
    PRIMARY KEY (merchant_number, payment_date, action_type, method_type)
);

CREATE TABLE IF NOT EXISTS settle.sink_position (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
);
