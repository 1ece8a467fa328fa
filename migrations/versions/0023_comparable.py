"""Values of meta get one notion of equal: numbers as numbers, ISO 8601 times as instants."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A cast to timestamptz raises on bad text, reads `now` and depends on the session's time zone.
    op.execute("""
        CREATE FUNCTION indexd.moment(value text) RETURNS bigint
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
        AS $$
        DECLARE
            part   text[];
            year   integer;
            month  integer;
            day    integer;
            result bigint;
        BEGIN
            IF value IS NULL OR value !~ '^[0-9]{4}-' THEN
                RETURN NULL;
            END IF;
            part := regexp_match(
                value,
                '^([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])'
                '(?:[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.]([0-9]+))?)?'
                '(?:[Zz]|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)?)?$'
            );
            IF part IS NULL THEN
                RETURN NULL;
            END IF;
            year  := part[1]::integer;
            month := part[2]::integer;
            day   := part[3]::integer;
            IF year = 0
               OR (day = 31 AND month IN (4, 6, 9, 11))
               OR (month = 2 AND day > 29)
               OR (month = 2 AND day = 29
                   AND (mod(year, 4) <> 0 OR (mod(year, 100) = 0 AND mod(year, 400) <> 0)))
            THEN
                RETURN NULL;
            END IF;
            result := (make_date(year, month, day) - make_date(1970, 1, 1))::bigint * 86400
                    + coalesce(part[4]::bigint, 0) * 3600
                    + coalesce(part[5]::bigint, 0) * 60
                    + coalesce(part[6]::bigint, 0);
            IF part[8] IS NOT NULL THEN
                result := result - (part[8] || '1')::integer
                        * (part[9]::integer * 3600 + coalesce(part[10]::integer, 0) * 60);
            END IF;
            RETURN result * 1000000 + rpad(left(coalesce(part[7], '0'), 6), 6, '0')::bigint;
        END
        $$
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.moment IS
        'Microseconds since 1970 UTC of an ISO 8601 date or date-time; NULL for any other text.'
    """)
    op.execute("""
        CREATE FUNCTION indexd.comparable(value jsonb) RETURNS jsonb
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
        AS $$
        DECLARE
            kind    text := jsonb_typeof(value);
            instant bigint;
        BEGIN
            IF kind = 'string' THEN
                instant := indexd.moment(value #>> '{}');
                RETURN CASE WHEN instant IS NULL THEN value
                            ELSE jsonb_build_object('t', instant) END;
            ELSIF kind = 'array' THEN
                RETURN (
                    SELECT coalesce(
                               jsonb_agg(
                                   coalesce(indexd.comparable(element), 'null') ORDER BY place
                               ),
                               '[]'
                           )
                      FROM jsonb_array_elements(value) WITH ORDINALITY AS _ (element, place)
                );
            ELSIF kind = 'object' THEN
                RETURN (
                    SELECT jsonb_build_object('o', coalesce(
                               jsonb_object_agg(key, indexd.comparable(member)), '{}'
                           ))
                      FROM jsonb_each(value) AS _ (key, member)
                     WHERE jsonb_typeof(member) <> 'null'
                );
            ELSIF kind = 'null' THEN
                RETURN NULL;
            END IF;
            RETURN value;
        END
        $$
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.comparable IS
        'Equal for values that filters take as equal: times as instants, null as a missing key.'
    """)


def downgrade() -> None:
    op.execute("DROP FUNCTION indexd.comparable")
    op.execute("DROP FUNCTION indexd.moment")
