//! What is asked for: URLs that take turns, the file of requests, bodies. Reads files.

use std::path::Path;

use crate::limits;
use crate::plan::Plan;
use crate::target::Target;
use crate::template::{self, Expect, Template};

/// Reads URLs, each with its weight; all lead to one place.
pub(super) fn targets(urls: &[String]) -> Result<(Target, Vec<(String, u32)>), String> {
    let mut first: Option<Target> = None;
    let mut paths = Vec::new();
    for text in urls {
        let (weight, url) = match text.split_once('*') {
            Some((weight, url)) if weight.bytes().all(|byte| byte.is_ascii_digit()) => {
                let weight = weight.parse().map_err(|_| format!("`{text}`: N*URL needs a number"));
                (weight?, url)
            }
            _ => (1, text.as_str()),
        };
        let target = Target::parse(url)?;
        paths.push((target.path.clone(), weight));
        let first = first.get_or_insert_with(|| target.clone());
        if !first.is_same_place(&target) {
            return Err(format!(
                "`{url}` leads to another place than `{}`; test one place at a time",
                first.url
            ));
        }
    }
    let first = first.ok_or("there is no URL to test; try loadgen --help")?;
    Ok((first, paths))
}

/// The kinds of requests of several URLs; none for a single one.
pub(super) fn of_urls(plan: &Plan, paths: &[(String, u32)]) -> Vec<Template> {
    if paths.len() < 2 {
        return Vec::new();
    }
    let kind = |(path, weight): &(String, u32)| Template {
        weight: *weight,
        method: plan.method().to_string(),
        path: path.clone(),
        headers: plan.headers.clone(),
        body: plan.body.clone(),
        expect: plan.expect.clone(),
    };
    paths.iter().map(kind).collect()
}

pub(super) fn read_templates(path: &Path, plan: &Plan) -> Result<Vec<Template>, String> {
    let wrong = |why: String| format!("--templates {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let read = |file: &str| read_body("body_file", &folder.join(file));
    let mut templates = template::parse(&text, read).map_err(wrong)?;
    for template in &mut templates {
        // What the command line says holds for all of them.
        template.headers.splice(0..0, plan.headers.iter().cloned());
        if template.expect == Expect::default() {
            template.expect = plan.expect.clone();
        }
    }
    match templates.is_empty() {
        true => Err(wrong("there is no request in it".to_string())),
        false => Ok(templates),
    }
}

pub(super) fn read_body(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |why: String| format!("{flag} {}: {why}", path.display());
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > limits::MAX_BODY {
        return Err(wrong("larger than 1 GiB".to_string()));
    }
    std::fs::read(path).map_err(|error| wrong(error.to_string()))
}
