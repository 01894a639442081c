-- A filled state database of version 1. The tables are in state_v1.sqlite.sql and state_v1.postgresql.sql, as that
-- version's `ledger init --sql` printed them; what these rows are about is in state_v1.json.
--
-- The code of commit d118f43 made the rows: its operators (dags reminders, news, billing, batches, redirected), run on
-- Airflow 3.3 against a server on 127.0.0.1:9 that refused, broke or hung where that was wanted; its commands (resolved_*
-- and forgotten); and its ledger's own steps for what killed tasks leave behind (dag killed; old_* with a clock that was
-- a year back). The SQLite file was then written down as INSERTs. It was in the mode of a write-ahead log (WAL).
INSERT INTO apptoto_meta (name, value) VALUES
('salt', '8c3782eda9e9f3aea2172c222dd544dd'),
('schema_version', '1');
INSERT INTO apptoto_pace (account, departs_at) VALUES
('b9b77ed7d59712558466610edb859afe', 1795903587556728);
INSERT INTO apptoto_ledger (dag_id, task_id, map_index, try_number, state, type, reference, in_doubt, lease,
    updated_at, http_status, reason, message_key, version, fingerprint, run_id) VALUES
('killed', 'old_sent', -1, 1, 'sent', 'sms', NULL, false, 0.0, 1763625600.257783, 200, '', '2b2749829a03b10ced88088fd2441406', '47abc4b65f5ddaa5', '80c5426f0cd14cbd', 'scheduled__2025-11-20T08:00:00+00:00'),
('killed', 'old_rejected', -1, 1, 'rejected', 'sms', NULL, false, 0.0, 1763625600.3113468, 422, 'to is not valid', '9cc79f106353ba373f6088d8b8f7efcd', 'd089e27a9e3e3a8b', '80c5426f0cd14cbd', 'scheduled__2025-11-20T08:00:00+00:00'),
('killed', 'old_not_sent', -1, 1, 'not_sent', 'sms', NULL, false, 0.0, 1763625600.3977864, NULL, '', 'a4a4ba2250c16e061904ea7b9ef1a33f', '3572d4ede0bddb93', '80c5426f0cd14cbd', 'scheduled__2025-11-20T08:00:00+00:00'),
('killed', 'old_unknown', -1, 1, 'unknown', 'sms', NULL, false, 0.0, 1763625600.4497323, NULL, '', '7f4812cb2004870fb528593bd0ce5d8d', '4231ee057094fb43', '80c5426f0cd14cbd', 'scheduled__2025-11-20T08:00:00+00:00'),
('killed', 'old_sending', -1, 1, 'sending', 'sms', NULL, false, 150.0, 1763625600.4672709, NULL, '', '0198874a589e9560d05dca2fa1715a6d', 'f724691cefca0ecc', '80c5426f0cd14cbd', 'scheduled__2025-11-20T08:00:00+00:00'),
('reminders', 'text', -1, 1, 'sent', 'sms', '4711', false, 0.0, 1795903565.9797425, 200, '', 'e82417060bbb8a4e7183e3743c31eb6f', '451ab80b20891d25', 'b806198a8d8ec7d8', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'mail', -1, 1, 'sent', 'email', 'appointment 4712', false, 0.0, 1795903566.9272354, 200, '', '8cd48e6537fdc7346ce425b94d154bc9', '4efd45212213ca1a', 'e3423ff1e15a1f74', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'call', -1, 1, 'sent', 'call', NULL, false, 0.0, 1795903567.4194334, 200, '', 'dd7f462c65028e2a177c7f81a35f1927', '7e4fcfd8377bee68', '3b9a34dcf3c0f60f', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'event', -1, 1, 'sent', 'sms', NULL, false, 0.0, 1795903568.2030084, 200, '', '9660598c2420ee452962e3454f752795', '1c5188cd70591a8e', '933a67f5744592f9', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'participant', -1, 1, 'sent', 'email', NULL, false, 0.0, 1795903568.8979611, 200, '', '67408b7cc0416f1cd0de18c8188784b5', 'cdedac73dfee5d2e', '9225863fbb04ea81', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'stored', -1, 1, 'sent', 'sms', NULL, false, 0.0, 1795903569.7414536, 200, '', '75ec6c720e3b78f5536871c361bb7641', 'f0dbfe9a84eda94d', '72885092c71d7efc', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'refused', -1, 1, 'rejected', 'sms', '4715', false, 0.0, 1795903570.5825524, 422, '["to is not a valid phone number"]', '5cfdb14b49b8b7e52cbc3e8ef226bfcf', '2aeb97579feeb3b5', 'f4ef878201e0dea4', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'limited', -1, 1, 'not_sent', 'sms', NULL, false, 0.0, 1795903571.6906822, 429, '', '471cbaeb81dc6975f7a0f62193bc4b1c', '4b8e865cf94ba4f9', 'bf7791817c98de84', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'broken', -1, 1, 'unknown', 'sms', '4717', false, 0.0, 1795903572.306194, 500, 'down', 'ca858ec765327ded5c2df43e5fe7223c', '586d969e8d99e034', '970c100a777ac17e', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'again', -1, 2, 'unknown', 'sms', '4718', true, 0.0, 1795903574.242183, 422, '', '8d81b6dc309abe72124fc9b311cccdd5', '95407dabcdc8c2d3', 'fd8e1382e6463498', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'hung', -1, 1, 'unknown', 'sms', NULL, false, 0.0, 1795903577.0459006, NULL, 'interrupted by AirflowTaskTimeout', 'c8e337403f1bae3c75d5498a57a29224', 'a969004f77e36a0d', 'ef9d966416b169b0', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'resolved_sent', -1, 1, 'sent', 'sms', '4730', false, 0.0, 1795903580.1113434, 500, 'down', '539f934e8aff836782e6d3c940b7c3bd', 'fd58208a4e00576d', '889ee0856b5b84a3', 'manual__2026-11-20T08:00:00+00:00'),
('reminders', 'resolved_not_sent', -1, 1, 'not_sent', 'sms', '4731', false, 0.0, 1795903580.2072182, 500, 'down', 'ca268c38ac5ae3deebff83d9aa749439', '7fc77dc722493811', '889ee0856b5b84a3', 'manual__2026-11-20T08:00:00+00:00'),
('news', 'mapped', 1, 1, 'sent', 'email', NULL, false, 0.0, 1795903582.197925, 200, '', 'c971583e4521701ed6a3ce06f60fd836', '4c06af430cf357f3', 'd9a9ced30d2c9497', 'manual__2026-11-20T08:00:00+00:00'),
('news', 'mapped', 2, 1, 'sent', 'email', NULL, false, 0.0, 1795903582.869699, 200, '', 'd56293aac05dcd0ae08705665062b2e4', '5e915a05e23c93c2', '8f75cc0a0ec49141', 'manual__2026-11-20T08:00:00+00:00'),
('news', 'mapped', 0, 1, 'sent', 'email', NULL, false, 0.0, 1795903583.5418673, 200, '', 'da8acacb127d7edf9d6038e1f9fa4cad', 'f77fe7c81f7fcb29', '55e862fff8d50d87', 'manual__2026-11-20T08:00:00+00:00'),
('billing', 'invoice', -1, 1, 'sent', 'sms', '4720', false, 0.0, 1795903584.6202652, 200, '', '2c04ba68d6cc3dc3d492e4f5d72a96e8', '86abb7a042d8ea0c', 'd6a5246918cee7c2', 'manual__2026-11-20T08:00:00+00:00'),
('batches', 'batch', -1, 1, 'sent', 'sms', 'A-0', false, 0.0, 1795903585.8157136, 200, '', 'b36d14072009859f863705cc55a20306', 'c3b7b84e7b0e76e4', '43be92d6bd3931b0', 'manual__2026-11-20T08:00:00+00:00'),
('batches', 'batch', -1, 1, 'sent', 'sms', 'A-1', false, 0.0, 1795903585.8985183, 200, '', '589c6dee73f7ac0222c768764ddee550', 'fa51e2a69a8cc44b', 'c5f227b93e6d14ac', 'manual__2026-11-20T08:00:00+00:00'),
('batches', 'batch', -1, 1, 'rejected', 'sms', 'A-2', false, 0.0, 1795903586.0051003, 422, '["This number has opted out"]', 'a31d96d770571139e777e870647c4a45', '319b0dbc4b57dcee', '10ee24defdd60eed', 'manual__2026-11-20T08:00:00+00:00'),
('batches', 'batch', -1, 1, 'unknown', 'sms', 'A-3', false, 0.0, 1795903586.1146128, 500, 'down', '34f38abc20114e4e9e501052fbd7a089', '0920c255b1d0891a', '6d447fa36176230f', 'manual__2026-11-20T08:00:00+00:00'),
('batches', 'batch', -1, 1, 'sent', 'sms', 'A-4', false, 0.0, 1795903586.191137, 200, '', '82b1f22febbf44bb905c007bd4103a31', '2df84303ea95a5c6', '0f4c9562a2087fa5', 'manual__2026-11-20T08:00:00+00:00'),
('redirected', 'tried', -1, 1, 'sent', 'sms', NULL, false, 0.0, 1795903587.5959206, 200, '', '77d427edd6b789eadbcdf80785762480', '7fe0fe99fcb324ac', 'b90dd76ed07ad89a', 'manual__2026-11-20T08:00:00+00:00'),
('killed', 'claimed', -1, 1, 'claimed', 'sms', NULL, false, 150.0, 1795903587.9264538, NULL, '', 'd802aa108d1cca8b08baf039eb77dafa', '1ed84514ee78cfeb', 'fe4ee3df2af6bfb2', 'manual__2026-11-20T08:00:00+00:00'),
('killed', 'claimed_once_more', -1, 2, 'claimed', 'sms', NULL, false, 150.0, 1795903587.9783442, NULL, '', 'def821615c0dae32ede904fc28645f22', '3154d299e69ddf6e', '737fd88d16a6af9b', 'manual__2026-11-20T08:00:00+00:00'),
('killed', 'claimed_in_doubt', -1, 2, 'claimed', 'sms', '4742', true, 150.0, 1795903588.0438418, NULL, '', '682efcd37deff1951c60c9586c28885b', '392de7f0d1983067', '13d1aeff505743b1', 'manual__2026-11-20T08:00:00+00:00'),
('killed', 'sending', -1, 1, 'sending', 'sms', '4743', false, 150.0, 1795903588.0896633, NULL, '', '1e0f17e2e02f4898454952802d12a22e', '5a9ef8eb40228b97', 'ff31641ac5b68d43', 'manual__2026-11-20T08:00:00+00:00'),
('killed', 'sending_in_doubt', -1, 2, 'sending', 'sms', NULL, true, 150.0, 1795903588.1898882, NULL, '', 'c7709f6213f7591d7d2a826837308ca6', '94199ded89da81e6', '46873b8dc97373c0', 'manual__2026-11-20T08:00:00+00:00');
INSERT INTO apptoto_ledger_change (message_key, at, from_state, to_state, changed_by, note) VALUES
('539f934e8aff836782e6d3c940b7c3bd', 1795903580.1121464, 'unknown', 'sent', 'ann', 'looked into the conversation'),
('ca268c38ac5ae3deebff83d9aa749439', 1795903580.2079282, 'unknown', 'not_sent', 'ann', 'looked into the conversation'),
('62e73fdd87f44fe8fc3c8e801853c458', 1795903580.2925363, 'rejected', 'forgotten', 'ann', 'number was corrected');
